"""Scripts that rebuild the weights of the embedded base from the npm packages of three emoji designers."""
