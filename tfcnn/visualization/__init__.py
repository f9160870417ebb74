"""Looking inside a net: what its classes, channels and neurons depend on, as pictures.

The names below are what the modules take, for those who must not import TensorFlow yet.
"""

BEST = -1  # stands for the class, channel or place that answers most
RULES = ("gradient", "deconvnet", "guided")  # of a signal back through a ReLU; see relu_rules
SALIENCY_METHODS = (
    "gradient",
    "gradient_x_input",
    "smoothgrad",
    "integrated_gradients",
    "guided",
    "grad_cam",
    "guided_grad_cam",
)
FILLS = ("zeros", "grey", "mean", "blur")  # what hides a part of a picture; see occlusion
SEEDS = ("otsu", "paper")  # which pixels of a map seed a segmentation; see segmentation
