"""Which image tokens does a noun need, and where does attention fetch it from them?"""
