"""What a device needs to run: the program file, its SRAM image, the integer reference, the tokenizer."""
