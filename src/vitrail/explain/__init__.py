"""Look inside: what a model attends to, with proof that the picture is true."""
