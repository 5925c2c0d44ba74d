"""Python twins of the compiled kernels in ``pgq_fast_ext``: same names, same behaviour."""
