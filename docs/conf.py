"""The documentation site: `make docs` writes it to target/docs; a warning fails it."""

project = "Occlum"
author = "the Occlum authors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "Occlum"
exclude_patterns = ["requirements.txt", "generated"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# Pages name files of the repository as code, not as links, so every link must lead somewhere.
nitpicky = True
html_copy_source = False
html_show_sphinx = False
