"""Does it work? The paper's experiment on pairs with a ground truth: one drawing by one designer in three styles."""
