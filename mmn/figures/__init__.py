"""How a figure is drawn: the value (`figure`), the paper theme, axes and words that charts share, and export.

The charts themselves are in the studies. Nothing here knows of models or Streamlit.
"""
