"""Does the style come, does the layout stay, does the training subject leak? Raw numbers, each with its encoder."""
