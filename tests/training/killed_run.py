"""A run that test_training_resume.py kills: `killed_run.py FOLDER SECONDS_A_STEP`; it ends with final.npz."""

import sys
import time

import numpy as np
import small_training as small
import tensorflow as tf

from tfcnn.runtime import Interrupted
from tfcnn.training.loop import train
from tfcnn.training.optimizers import AdamW
from tfcnn.training.schedules import cosine

STEPS = 60


def main():
    folder, pause = sys.argv[1], float(sys.argv[2])
    tf.config.experimental.enable_op_determinism()
    trainee = small.SmallTrainee(small.small_net(batch_norm=True, dropout=0.4))

    def progress(step, numbers):
        if numbers["losses"]:
            print(step, flush=True)
        time.sleep(pause)

    try:
        result = train(
            trainee,
            small.batches(8),
            steps=STEPS,
            folder=folder,
            schedule=cosine(0.01, STEPS, 5),
            optimizer=AdamW(weight_decay=0.02),
            average=0.9,
            clip_norm=1.0,
            accumulate=2,
            validate_steps=7,
            best="accuracy",
            checkpoint_minutes=0.002,
            progress=progress,
            tensorboard=False,
        )
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(75)
    np.savez(f"{folder}/final.npz", trained=result.trained, best=result.best["accuracy"], **trainee.weights())


if __name__ == "__main__":
    main()
