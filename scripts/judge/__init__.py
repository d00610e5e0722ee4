"""Training of a judge of answerability: `python -m scripts.judge FOLDER`."""
