"""What predictions are worth: accuracy, average precision, detections."""
