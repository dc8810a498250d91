"""Pages for a browser: the report of a run, and runs side by side, each one file that works offline.

Bokeh is the optional extra `pages`, loaded when a page is made. The page of a work in
progress (`live`) is made of the same figures.
"""

from ptycho_core.report.pages.compare import write_comparison
from ptycho_core.report.pages.run import REPORT_NAME, write_report

__all__ = ["REPORT_NAME", "write_comparison", "write_report"]
