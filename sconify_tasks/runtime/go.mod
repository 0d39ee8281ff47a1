module sconify.local/runtime

go 1.24
