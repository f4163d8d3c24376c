"""The picture in the middle: one component for the pictures of the Image, Lens and Neuron pages.

`panels` says what is shown, `mount` shows it and keeps what is looked at in the address, `written_by` answers what
wrote an image token, `second` finds the same picture in another run. `component.js` and `style.css` are the browser's
half, by Streamlit's components v2.
"""
