// Parses files of SQL as Trino does, and prints a line for each statement: what it is, and the name that it makes. Statements end with a
// semicolon at the end of a line.

import io.trino.sql.parser.ParsingException;
import io.trino.sql.parser.SqlParser;
import io.trino.sql.tree.CreateView;
import io.trino.sql.tree.Statement;
import java.nio.file.Files;
import java.nio.file.Path;

public final class Parse {
    public static void main(String[] files) throws Exception {
        for (String file : files) {
            for (String part : Files.readString(Path.of(file)).split(";\\s*(\n|$)")) {
                try {
                    Statement statement = new SqlParser().createStatement(part);
                    String made = statement instanceof CreateView view ? view.getName().toString() : "-";
                    System.out.println(statement.getClass().getSimpleName() + " " + made);
                } catch (ParsingException error) {
                    System.err.println(file + ": " + error.getMessage() + "\n" + part);
                    System.exit(1);
                }
            }
        }
    }
}
