"""Pictures: the style of all plots, and drawings of networks.

A picture is a figure of matplotlib. It becomes an SVG element of a page or a file (SVG, PDF).
"""
