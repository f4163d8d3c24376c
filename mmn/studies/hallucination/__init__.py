"""Does the model itself believe in the objects that it names, and can one be taken out of the picture's tokens?"""
