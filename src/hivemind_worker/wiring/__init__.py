"""Settings in, working parts out: the only package that names concrete classes. One file per thing built."""
