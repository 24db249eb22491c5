"""Networks of Keras, `.keras` and `.h5`, computed by torch; nothing else here imports it."""
