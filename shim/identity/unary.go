package identity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// unary makes one gRPC call, with one message each way, on a connection of its
// own. The gRPC module's client would do it too; but with its resolvers,
// balancers, TLS and HTTP it makes a third of the shim's program, which a node
// starts for each container, to ask three questions of a local socket. The wire
// is that of RFC 9113 (HTTP/2) and of gRPC's PROTOCOL-HTTP2.md.
//
// Its errors are gRPC's: Unavailable if nobody answers, DeadlineExceeded if not in time.
func (c Client) unary(ctx context.Context, ns, method string, req, resp proto.Message) error {
	reply, err := c.exchange(ctx, ns, method, req)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case err != nil:
		return status.Error(codes.Unavailable, err.Error())
	case reply.status != codes.OK:
		return status.Error(reply.status, reply.message)
	}
	if err := proto.Unmarshal(reply.body, resp); err != nil {
		return status.Errorf(codes.Internal, "decode the answer to %s: %v", method, err)
	}
	return nil
}

// reply is what a call was answered with.
type reply struct {
	status  codes.Code
	message string
	body    []byte
}

func (c Client) exchange(ctx context.Context, ns, method string, req proto.Message) (reply, error) {
	message, err := proto.Marshal(req)
	if err != nil {
		return reply{}, err
	}
	if len(message) > maxFrame-messageHeader {
		return reply{}, fmt.Errorf("the request to %s is too long: %d bytes", method, len(message))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Address)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	// Whatever ends ctx ends the reads and writes.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(request(ns, method, message)); err != nil {
		return reply{}, err
	}
	return answer(conn)
}

// What of HTTP/2 is needed.
const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	frameHeader = 9
	maxFrame    = 16 << 10

	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	// stream is the number of a client's first stream, and here its only one.
	stream = 1
	// window is how much a server may send without being told to go on, and so
	// what an answer must be shorter than. containerd allows messages of 16 MiB.
	window = 16<<20 + 4<<10
	// defaultWindow is what it would be for the whole connection.
	defaultWindow = 64<<10 - 1
	// settingWindow is the number of the setting for a stream.
	settingWindow = 0x4

	// messageHeader is the length of what gRPC puts before a message: whether it
	// is compressed, and its length.
	messageHeader = 5
)

// request is all that the client says of itself.
func request(ns, method string, message []byte) []byte {
	var fields bytes.Buffer
	enc := hpack.NewEncoder(&fields)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"containerd-namespace", ns},
	} {
		// Writing to a buffer does not fail.
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	b := []byte(preface)
	b = appendFrame(b, frameSettings, 0, 0, binary.BigEndian.AppendUint32([]byte{0, settingWindow}, window))
	b = appendFrame(b, frameWindow, 0, 0, binary.BigEndian.AppendUint32(nil, window-defaultWindow))
	b = appendFrame(b, frameHeaders, flagEndHeaders, stream, fields.Bytes())
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return appendFrame(b, frameData, flagEndStream, stream, append(body, message...))
}

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(b, payload...)
}

// answer reads frames until the stream ends, and says what must be said meanwhile.
func answer(conn io.ReadWriter) (reply, error) {
	a := assembly{code: -1}
	a.dec = hpack.NewDecoder(4<<10, a.field)
	r := bufio.NewReader(conn)
	for !a.ended {
		kind, flags, id, payload, err := readFrame(r)
		if err != nil {
			return reply{}, err
		}
		switch kind {
		case frameData, frameHeaders, frameContinuation, frameReset:
			if id == stream {
				err = a.add(kind, flags, payload)
			}
		case frameSettings, framePing:
			if flags&flagAck != 0 {
				break
			}
			if kind == frameSettings {
				payload = nil
			}
			_, err = conn.Write(appendFrame(nil, kind, flagAck, 0, payload))
		case frameGoAway:
			if len(payload) < 8 || binary.BigEndian.Uint32(payload)&^(1<<31) < stream {
				err = errors.New("the server takes no more calls")
			}
		}
		if err != nil {
			return reply{}, err
		}
	}
	return a.reply()
}

func readFrame(r io.Reader) (kind, flags byte, id uint32, payload []byte, err error) {
	var h [frameHeader]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return 0, 0, 0, nil, fmt.Errorf("read the answer: %w", err)
	}
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	if n > maxFrame {
		return 0, 0, 0, nil, fmt.Errorf("read the answer: a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, 0, 0, nil, fmt.Errorf("read the answer: %w", err)
	}
	return h[3], h[4], binary.BigEndian.Uint32(h[5:]) &^ (1 << 31), payload, nil
}

// assembly puts an answer together.
type assembly struct {
	dec  *hpack.Decoder
	data []byte
	// code is -1 before the status is known.
	code    int
	message string
	// last says that the stream ends with the headers that are being read.
	last, ended bool
}

func (a *assembly) field(f hpack.HeaderField) {
	switch f.Name {
	case "grpc-status":
		if n, err := strconv.Atoi(f.Value); err == nil && n >= 0 {
			a.code = n
		}
	case "grpc-message":
		a.message = unescape(f.Value)
	}
}

// add takes in a frame of the stream.
func (a *assembly) add(kind, flags byte, p []byte) error {
	if kind == frameReset {
		return errors.New("the server reset the call")
	}
	if kind != frameContinuation {
		var err error
		if p, err = unpad(kind, flags, p); err != nil {
			return err
		}
		a.last = flags&flagEndStream != 0
	}
	if kind == frameData {
		if len(a.data)+len(p) >= window {
			return fmt.Errorf("the answer is too long: %d bytes and more", window)
		}
		a.data = append(a.data, p...)
		a.ended = a.last
		return nil
	}
	if _, err := a.dec.Write(p); err != nil {
		return fmt.Errorf("read the answer's headers: %w", err)
	}
	if flags&flagEndHeaders == 0 {
		return nil
	}
	a.ended = a.last
	if err := a.dec.Close(); err != nil {
		return fmt.Errorf("read the answer's headers: %w", err)
	}
	return nil
}

// unpad removes padding and priority.
func unpad(kind, flags byte, p []byte) ([]byte, error) {
	padding := 0
	if flags&flagPadded != 0 {
		if len(p) == 0 {
			return nil, errors.New("a frame without its padding")
		}
		padding, p = int(p[0]), p[1:]
	}
	before := 0
	if kind == frameHeaders && flags&flagPriority != 0 {
		before = 5
	}
	if before+padding > len(p) {
		return nil, errors.New("a frame shorter than its padding")
	}
	return p[before : len(p)-padding], nil
}

func (a *assembly) reply() (reply, error) {
	if a.code < 0 {
		return reply{}, errors.New("the answer has no status")
	}
	r := reply{status: codes.Code(a.code), message: a.message}
	if r.status != codes.OK {
		return r, nil
	}
	if len(a.data) < messageHeader || a.data[0] != 0 || int64(binary.BigEndian.Uint32(a.data[1:])) != int64(len(a.data)-messageHeader) {
		return reply{}, errors.New("the answer is not one plain message")
	}
	r.body = a.data[messageHeader:]
	return r, nil
}

// unescape undoes the percent-encoding of a status message; what is not
// encoded as it should be stays as it is.
func unescape(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
