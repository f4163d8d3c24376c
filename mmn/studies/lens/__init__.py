"""Image tokens read as words, before the first layer and after every one."""
