from .access import Access as Access
from .findings import Finding as Finding
from .findings import Findings as Findings
from .server import ReviewServer as ReviewServer
from .service import ReviewService as ReviewService
