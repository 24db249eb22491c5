"""Arrow columns and NumPy arrays: conversion, lists of varying length, hashes."""
