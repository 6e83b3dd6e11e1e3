"""The author's side: from solutions/NN_topic.py to the executed and the released notebook."""
