-- tfcnn in a checkout, with the virtual environment that cluster/make_venv.sh made on a site's TensorFlow.
help([[
Convolutional nets beyond classification, in TensorFlow and Keras: the command tfcnn and the Python package.
    tfcnn                 lists the apps
    tfcnn NAME --help     shows an app's flags
Batch scripts lie in $TFCNN_HOME/cluster. The virtual environment is $TFCNN_HOME/.venv-cluster, or TFCNN_VENV.
]])
whatis("Name: tfcnn")
whatis("Version: " .. myModuleVersion())
whatis("Description: detection, localization, saliency, DeepDream, style and adversarial pictures by convolutional nets")

local home = myFileName():match("^(.*)/cluster/modules/")
local venv = os.getenv("TFCNN_VENV") or pathJoin(home, ".venv-cluster")

if mode() == "load" and not isFile(pathJoin(venv, "bin", "tfcnn")) then
    LmodError("tfcnn: " .. venv .. " is no environment of tfcnn yet: load the site's TensorFlow and run "
        .. pathJoin(home, "cluster", "make_venv.sh"))
end

-- The modules that were loaded when the environment was made: the site's TensorFlow, its Python, CUDA.
local list = io.open(pathJoin(venv, "site_modules.txt"))
if list then
    for name in list:lines() do
        if name ~= "" then depends_on(name) end
    end
    list:close()
end

setenv("TFCNN_HOME", home)
setenv("VIRTUAL_ENV", venv)
prepend_path("PATH", pathJoin(venv, "bin"))
setenv("TF_CPP_MIN_LOG_LEVEL", "2")
