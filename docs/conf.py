"""Settings of the documentation site, which `make docs` builds."""

import importlib
import importlib.metadata
import inspect
import re

project = "kseq"
copyright = "the authors of kseq"
release = importlib.metadata.version("kseq")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas without a network
]
templates_path = ["templates"]
exclude_patterns = ["templates", "design/README.md", "package.md"]
html_theme = "furo"
html_title = "kseq"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autosummary_imported_members = True
autosummary_ignore_module_all = False
autosummary_context = {"is_of_kseq": lambda *place: is_of_kseq(*place)}
suppress_warnings = ["config.cache"]  # of this function, which is not cached
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call arguments", "params_style")]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


SECTION = re.compile(r"(Args|Attributes|Call arguments|Returns|Raises|References):")


def as_restructured_text(app, what, name, obj, options, lines):
    """Rewrite what the docstrings have in the form of Markdown: code and links."""
    written, prose = [], []
    is_code = in_section = False

    def finish_prose():
        written.extend(without_markdown("\n".join(prose)).split("\n") if prose else [])
        prose.clear()

    for line, before in zip(lines, ["", *lines], strict=False):
        in_section = in_section or bool(SECTION.match(line))
        is_literal = line.startswith(("    ", "|"))  # a formula, or a table
        starts = is_literal and not before.strip() and not in_section
        if starts and not is_code:
            finish_prose()
            written.extend([".. code-block:: text", ""])
            is_code = True
        elif is_code and line.strip() and not is_literal:
            is_code = False
        line = f"    {line}" if is_code and line.startswith("|") else line
        (written if is_code else prose).append(line)
    finish_prose()
    lines[:] = written


def signature_of_layer(app, what, name, obj, options, signature, return_annotation):
    """Show the arguments of `__init__`, which Keras hides behind `*args, **kwargs`."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in list(inspect.signature(obj.__init__).parameters.values())[1:]
    ]
    return str(inspect.Signature(parameters)), return_annotation


def is_of_kseq(module, class_name, method):
    """Return True for a documented method that kseq defines, not Keras or Python."""
    whole = getattr(importlib.import_module(module), class_name)
    definition = next((vars(x) for x in whole.__mro__ if method in vars(x)), {})
    function = getattr(definition.get(method), "__func__", definition.get(method))
    if not callable(function) or not function.__doc__:
        return False
    origin = getattr(inspect.unwrap(function), "__module__", "")
    return origin.startswith("kseq.")


def without_markdown(text):
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``\\ ", text)
    text = re.sub(r"\[([^]\n]+)\]\s?\((https?://[^)\s]+)\)", r"`\1 <\2>`__", text)
    return text.replace("**kwargs", r"\*\*kwargs")


def setup(app):
    app.connect("autodoc-process-signature", signature_of_layer)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
