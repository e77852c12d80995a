module multilangd.test/clever

go 1.19

require github.com/Clever/amazon-kinesis-client-go v1.0.0
