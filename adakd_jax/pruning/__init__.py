"""A smaller model out of a larger one: what matters least in it is left out.

References: Minitron (arXiv 2407.14679, 2408.11796) for widths, ShortGPT (arXiv 2403.03853) for
layers.
"""
