//! Completions by script: what a kernel may tell, in every order that it may.
