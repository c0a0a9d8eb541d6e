"""The words of the product: what a task is and which moves it may make. Pure, standard library only."""
