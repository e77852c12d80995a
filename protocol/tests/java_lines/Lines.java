import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.*;
import java.nio.charset.StandardCharsets;
import software.amazon.kinesis.multilang.messages.*;

/** Reads lines of escaped bytes, and prints how the ObjectMapper of the Java daemon's MessageReader reads each of them. */
public class Lines {
    static byte[] bytes(String field) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (int i = 0; i < field.length(); i++) {
            char c = field.charAt(i);
            if (c == '\\') { out.write(Integer.parseInt(field.substring(i + 2, i + 4), 16)); i += 3; }
            else out.write(c);
        }
        return out.toByteArray();
    }
    static String field(String text) {
        if (text == null) return "-";
        StringBuilder out = new StringBuilder("=");
        for (byte b : text.getBytes(StandardCharsets.UTF_8)) {
            if (b >= 0x20 && b < 0x7f && b != '\\') out.append((char) b);
            else out.append(String.format("\\x%02x", b & 0xff));
        }
        return out.toString();
    }
    static String verdict(Message message) {
        if (message instanceof CheckpointMessage) {
            CheckpointMessage checkpoint = (CheckpointMessage) message;
            Long sub = checkpoint.getSubSequenceNumber();
            return "checkpoint\t" + field(checkpoint.getSequenceNumber()) + "\t" + (sub == null ? "-" : sub);
        }
        if (message instanceof StatusMessage) return "status\t" + field(((StatusMessage) message).getResponseFor());
        return message == null ? "null" : "other";
    }

    public static void main(String[] args) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false, "UTF-8");
        for (String line; (line = in.readLine()) != null; ) {
            String said = new BufferedReader(new InputStreamReader(new ByteArrayInputStream(bytes(line)), StandardCharsets.UTF_8)).readLine();
            String verdict;
            try {
                verdict = said == null || said.isEmpty() ? "empty" : verdict(mapper.readValue(said, Message.class));
            } catch (IOException e) {
                verdict = "noise";
            }
            out.print(line + "\t" + verdict + "\n");
        }
        out.flush();
    }
}
