"""How Sphinx builds the site, `python docs/build.py`.

Pages are Markdown, and their code is executed. Nothing is fetched, neither while the site is built
nor when it is read.
"""

import os
import subprocess
import sys
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).resolve().parent
# what builds pages from the code lies here
sys.path.insert(0, str(DOCS))
import docstrings  # noqa: E402
import kernels  # noqa: E402
from jupyter_cache import get_cache  # noqa: E402

sys.path.append(str(DOCS.parent))
from experiments import quick_compilation  # noqa: E402

# Kernels inherit these. Pages fit little data, so that compilation is what they wait for: little of
# it, and kept from page to page.
cache = DOCS / "_build" / "compiled"
quick_compilation.ask_for_it()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# a page needs no widget for progress
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
# kernels show figures by a backend of their own
os.environ.pop("MPLBACKEND", None)
os.environ.setdefault("IPYTHONDIR", str(DOCS / "_ipython"))
os.environ.setdefault("MATPLOTLIBRC", str(DOCS / "matplotlibrc"))

project = "emjax"
author = "the emjax developers"
project_copyright = "the emjax developers, Apache-2.0"
release = version = version_of("emjax")
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_ipython", "_jupyter", "**/.ipynb_checkpoints", "jupyter_execute"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "executed")
# it is there before processes that read pages side by side would each make it
get_cache(nb_execution_cache_path).list_cache_records()
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True

# In docstrings, what stands between single backticks is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
toc_object_entries = False
maximum_signature_line_length = 80

html_theme = "furo"
html_title = "emjax"
# formulas are set by MathJax, of which `sphinx-mathjax-offline` brings the files
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static"
html_static_path = ["_static", str(MATHJAX)]
mathjax_path = "mathjax/tex-chtml.js"
html_css_files = ["site.css"]
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#1b5e8c", "color-brand-content": "#1b5e8c"},
    "dark_css_variables": {"color-brand-primary": "#7db8e0", "color-brand-content": "#7db8e0"},
}
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"


MODEL_PAGES = [sys.executable, str(DOCS / "model_pages.py")]


def setup(app):
    """Read docstrings as what they are; write the pages of models; have kernels served."""
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("autodoc-skip-member", docstrings.is_skipped)
    # by a process of its own, since this one forks others, which JAX does not survive
    app.connect("builder-inited", lambda app: subprocess.run(MODEL_PAGES, check=True))
    if sys.platform == "linux":
        # elsewhere a process that has such libraries must not fork: pages import them
        app.connect("builder-inited", lambda app: kernels.start_server())
