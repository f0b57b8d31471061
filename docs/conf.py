"""Settings of Sphinx: ``sphinx-build -M html docs build/docs -W --keep-going`` builds these pages."""

from sphinx.util import logging

import alscore.spark

project = "alscore"
author = "the alscore authors"
copyright = "2026, the alscore authors"
release = version = alscore.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
]
templates_path = ["_templates"]
default_role = "py:obj"

html_theme = "furo"
html_title = f"alscore {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

autodoc_typehints = "none"  # the docstrings have more: shapes, dtypes
numpydoc_show_class_members = False  # the template lists them
numpydoc_validation_checks = {
    "GL03",  # two blank lines running
    "GL06",  # a section of another name
    "GL07",  # sections in another order
    "GL08",  # no docstring
    "GL09",
    "GL10",
    "SS01",  # no summary
    "SS02",
    "SS04",
    "PR01",  # a parameter that is not documented
    "PR02",  # a documented parameter that does not exist
    "PR05",
    "PR10",
    "RT01",  # no Returns section
    "YD01",
}
# a class that only our functions make documents its attributes instead of its parameters
numpydoc_validation_overrides = {"PR01": [r"(?s)\A(?!.*\nParameters\n).*\nAttributes\n"]}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True


def check_reference(app, env):
    """Warn of each public name that the reference lacks."""
    documented = env.get_domain("py").data["objects"]
    for module in (alscore, alscore.spark):
        for name in module.__all__:
            if f"{module.__name__}.{name}" not in documented:
                warn = logging.getLogger(__name__).warning
                warn("%s.%s is public, and not in docs/reference.md", module.__name__, name)


def skip_generated(app, what, name, obj, skip, options):
    """Leave out the generated docs of named tuples' fields, and the accessors of Spark parameters."""
    return skip or str(getattr(obj, "__doc__", "")).startswith(
        ("Alias for field number", "Set the parameter `", "Get the parameter `")
    )


def setup(app):
    app.connect("autodoc-skip-member", skip_generated)
    app.connect("env-check-consistency", check_reference)
