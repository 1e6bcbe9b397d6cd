"""The page of `vitrail explain`, and the arrays and pictures beside it."""
