"""What the scheduler is made of: values, prices that learn, the book of jobs and devices, the outlook, fair shares."""
