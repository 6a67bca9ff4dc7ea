from .encoders import Precision as Precision
from .encoders import TimmEncoder as TimmEncoder
from .options import model_options as model_options
