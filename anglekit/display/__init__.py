"""Tables and results as text, HTML, markdown and LaTeX: written once, used everywhere."""
