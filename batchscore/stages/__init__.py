"""The steps a block of rows goes through, as plain functions without Beam."""
