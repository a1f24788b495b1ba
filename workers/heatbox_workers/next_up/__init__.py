"""What to label next: open tasks are judged picture by picture, and picked one after the other."""
