"""GPU kernels, each with a reference in plain torch that answers the same without a GPU."""
