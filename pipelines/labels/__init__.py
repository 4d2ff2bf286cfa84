"""What labels decide: the class loss, probabilities, measures and what a class scores."""
