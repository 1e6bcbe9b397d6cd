"""Is a map true to the model: measures of explanations, always beside maps that know nothing."""
