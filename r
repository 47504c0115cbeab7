"n","text","tags"
