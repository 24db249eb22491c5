"""CatBoost models: what a `.cbm` file says, loading, calling and saving it."""
