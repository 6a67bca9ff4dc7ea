from .agreement import compare as compare
from .chain import run_chain as run_chain
from .config import StudyConfig as StudyConfig
from .folder import RunFolder as RunFolder
from .study import Study as Study
from .study import new_study as new_study
from .study import open_study as open_study
