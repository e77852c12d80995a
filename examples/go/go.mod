module multilangd.example/orders

go 1.19

require github.com/Clever/amazon-kinesis-client-go v1.0.0
