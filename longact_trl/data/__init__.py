"""The datasets of LongAct, in the conversational format of TRL."""
