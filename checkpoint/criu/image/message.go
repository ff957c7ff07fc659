package image

import "google.golang.org/protobuf/encoding/protowire"

// Message is a protobuf message whose types nobody has to know: newer versions of CRIU add
// fields, which are passed on. Of a field that is there more than once, the last one counts.
type Message []Field

// Field is one field of a message, as it was read.
type Field struct {
	Num protowire.Number
	// Value is that of a varint.
	Value uint64
	// Bytes is that of a string or an embedded message.
	Bytes []byte

	typ protowire.Type
	// raw is the value's encoding, for types that are only passed on.
	raw []byte
}

// Parse splits a message, whose fields then share its bytes.
func Parse(b []byte) (Message, error) {
	var m Message
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		f := Field{Num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.Value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.Bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		f.raw, b = b[:n], b[n:]
		m = append(m, f)
	}
	return m, nil
}

// Encode is the message as Parse reads it.
func (m Message) Encode() []byte {
	var b []byte
	for _, f := range m {
		b = protowire.AppendTag(b, f.Num, f.typ)
		switch f.typ {
		case protowire.VarintType:
			b = protowire.AppendVarint(b, f.Value)
		case protowire.BytesType:
			b = protowire.AppendBytes(b, f.Bytes)
		default:
			b = append(b, f.raw...)
		}
	}
	return b
}

// Find returns the field of that number; nil for none.
func (m Message) Find(num protowire.Number) *Field {
	for i := len(m) - 1; i >= 0; i-- {
		if m[i].Num == num {
			return &m[i]
		}
	}
	return nil
}

// Number is the value of a varint; 0 for none.
func (m Message) Number(num protowire.Number) uint64 {
	if f := m.Find(num); f != nil {
		return f.Value
	}
	return 0
}

// Text is that of a string or an embedded message; nil for none.
func (m Message) Text(num protowire.Number) []byte {
	if f := m.Find(num); f != nil {
		return f.Bytes
	}
	return nil
}

// Set gives a varint field a value.
func (m *Message) Set(num protowire.Number, v uint64) {
	m.put(Field{Num: num, typ: protowire.VarintType, Value: v})
}

// SetText gives a string or an embedded message a value.
func (m *Message) SetText(num protowire.Number, v []byte) {
	m.put(Field{Num: num, typ: protowire.BytesType, Bytes: v})
}

func (m *Message) put(f Field) {
	if old := m.Find(f.Num); old != nil {
		*old = f
		return
	}
	*m = append(*m, f)
}

// Without returns a message without the fields of that number.
func (m Message) Without(num protowire.Number) Message {
	var out Message
	for _, f := range m {
		if f.Num != num {
			out = append(out, f)
		}
	}
	return out
}
