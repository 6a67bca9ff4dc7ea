from .answer import Answer as Answer
from .files import write_answer as write_answer
from .picture import ask_image as ask_image
from .picture import ask_slide as ask_slide
from .words import reading_json as reading_json
from .words import reading_lines as reading_lines
