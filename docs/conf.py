"""Configuration of the documentation; the source directory is the repository root, so that notebooks are pages too."""

from stemstore import __version__

project = "stemstore"
author = "The stemstore developers"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/**"]
exclude_patterns = ["docs/_build", "**.ipynb_checkpoints"]

# Notebooks are stored without outputs and run at every build; one that fails stops the build.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
autosummary_generate = False
suppress_warnings = ["ref.python"]  # the word "shape" before the extents of an attribute refers to nothing

html_theme = "furo"
html_title = f"stemstore {__version__}"
html_static_path = []
html_copy_source = False
