"""The output of a run or a selection -> a data set on the Hugging Face hub, with a card that says what it is."""
